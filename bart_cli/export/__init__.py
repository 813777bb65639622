"""`bart export`: models in the forms that others read, model cards, and the upload to the hub."""
