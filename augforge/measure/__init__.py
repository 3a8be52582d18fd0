"""`augforge measure`: how near made pictures are to real ones, and whether they help a classifier."""
