"""One file per `east VERB`."""
