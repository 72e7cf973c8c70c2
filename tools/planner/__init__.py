"""What a deployment costs, and how far it carries."""
