"""What people type: `hookprobe <noun> <verb>` and a few short verbs."""
