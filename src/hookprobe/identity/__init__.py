"""Who a node is: its status, its secrets, and the signed directory that vouches for it."""
