"""`pytest --fleeting-provider NAME`: runs the contract on an installed provider."""
