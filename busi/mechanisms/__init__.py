"""Why the published numbers are what they are, by experiment and not by argument: a module a section of notebook 5."""
