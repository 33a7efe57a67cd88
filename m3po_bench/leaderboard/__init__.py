"""The leaderboard: grids of agent x env x seed, run, stored, aggregated and reported."""
