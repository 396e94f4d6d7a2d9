"""The first files of a new user: documents and a workflow for one repository."""
