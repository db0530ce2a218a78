"""Kafka and Kafka Streams for Python: a log that speaks the Kafka protocol, and stream processing on top."""
