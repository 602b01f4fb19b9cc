"""The quick start and jobs of several stages: public calls in sequence."""
