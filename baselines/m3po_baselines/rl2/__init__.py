"""RL2: a recurrent policy that learns within trials of several episodes."""
