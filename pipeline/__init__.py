"""The quick start and the study: public calls in sequence."""
