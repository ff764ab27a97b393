"""Tests of the etcd client."""
