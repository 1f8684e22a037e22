"""A job for ``spark-submit``: sums a Parquet file's column ``late`` into a folder of Parquet files."""

import sys

from pyspark.sql import SparkSession

rows, sums = sys.argv[1:]
session = SparkSession.builder.getOrCreate()
session.read.parquet(rows).repartition(2).selectExpr("sum(late) late").write.parquet(sums)
session.stop()
