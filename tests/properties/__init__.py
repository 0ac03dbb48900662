"""Property tests: long runs that hypothesis makes up."""
