"""What Kafka writes with the message encoding into its own topics and files, one file per place."""
