"""`augforge synth`: request -> prepare -> plan -> generate -> write."""
