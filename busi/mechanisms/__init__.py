"""Experiments that explain the published numbers: one module for each section."""
