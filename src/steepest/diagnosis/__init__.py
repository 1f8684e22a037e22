"""Why the descent went as it went: figures and the report, from what a run recorded."""
