"""The pages of the dashboard: one module is one page, or a few that belong together."""
