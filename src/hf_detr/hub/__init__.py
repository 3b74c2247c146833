"""Writes model cards, saves models with their code, and pushes model folders to the Hub."""
