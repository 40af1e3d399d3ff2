"""`usx bag`: play, record and describe rosbag2 recordings. Messages stay serialised (CDR) all the way."""
