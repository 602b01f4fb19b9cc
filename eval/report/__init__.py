"""The HTML report: tables, charts, pictures and the page."""
