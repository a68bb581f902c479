"""What a user holds: frames, clips, volumes, crops."""
