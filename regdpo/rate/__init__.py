"""The blind rating page: what is shown to whom, the answers, and the server on loopback."""
