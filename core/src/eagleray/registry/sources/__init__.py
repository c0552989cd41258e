"""Where a dataset comes from: a folder, an archive, a bucket, an address. Each becomes a folder of this machine."""
