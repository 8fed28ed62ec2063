"""trunkline.api.journal.v1, generated from the .proto files beside this one."""
