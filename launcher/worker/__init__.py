"""What a job runs on its node. The only importer of the training stack; nothing imports it."""
