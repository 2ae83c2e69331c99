"""The report's drawings; each function returns a finished `canvas.Figure`."""
