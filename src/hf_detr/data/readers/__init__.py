"""One file for each layout of annotated pictures; each turns it into `SourceSplit`s."""
