"""The benchmark harness: tasks, arms, runs over paired seeds, scores, reports. A client of llmhpo's exported names."""
