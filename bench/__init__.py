"""What streamlog costs, always beside a peer that does the same work in the same run. `make bench` runs it all."""
