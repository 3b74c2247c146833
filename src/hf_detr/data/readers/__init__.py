"""Readers of annotated pictures. Each file here reads one layout, or a few that are alike, into `SourceSplit`s."""
