"""The wire format and the code that `make proto` generates from it; only the .proto files are edited."""
