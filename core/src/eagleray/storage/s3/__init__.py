"""A store in an S3 or R2 bucket. boto3 talks to it; obstore fetches many files at once."""
