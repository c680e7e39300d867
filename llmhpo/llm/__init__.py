"""Language models behind one protocol: hosted, local, scripted."""
