"""What a person submits to a cluster: fit a classifier on rows of HDFS, and save it there."""

import sys

from pyspark.sql import SparkSession

from steepest.spark import DescentClassifier

rows, model = sys.argv[1:]
session = SparkSession.builder.getOrCreate()
frame = session.read.parquet(rows)
classifier = DescentClassifier(labelCol="late", learningRate=0.1, batchSize=64, epochs=2, numWorkers=2)
classifier.fit(frame).write().overwrite().save(model)
session.stop()
