"""One run: started, recorded, resumed, and what it found."""
