"""etcd's messages. The names and numbers of fields are those of rpc.proto, kv.proto and auth.proto."""

from __future__ import annotations

from typing import Final

from adsum import protobufs

_MESSAGES: Final = {
    "KeyValue": "bytes key=1, int64 create_revision=2, int64 mod_revision=3, int64 version=4, bytes value=5, "
    "int64 lease=6",
    "Event": "int32 type=1, KeyValue kv=2, KeyValue prev_kv=3",
    "Header": "uint64 cluster_id=1, uint64 member_id=2, int64 revision=3, uint64 raft_term=4",
    "RangeRequest": "bytes key=1, bytes range_end=2, int64 limit=3, int64 revision=4, int32 sort_order=5, "
    "int32 sort_target=6, bool serializable=7, bool keys_only=8, bool count_only=9",
    "RangeResponse": "Header header=1, repeated KeyValue kvs=2, bool more=3, int64 count=4",
    "PutRequest": "bytes key=1, bytes value=2, int64 lease=3",
    "PutResponse": "Header header=1",
    "DeleteRangeRequest": "bytes key=1, bytes range_end=2",
    "DeleteRangeResponse": "Header header=1, int64 deleted=2",
    "RequestOp": "oneof RangeRequest request_range=1, oneof PutRequest request_put=2, "
    "oneof DeleteRangeRequest request_delete_range=3",
    "ResponseOp": "oneof RangeResponse response_range=1, oneof PutResponse response_put=2, "
    "oneof DeleteRangeResponse response_delete_range=3",
    "Compare": "int32 result=1, int32 target=2, bytes key=3, oneof int64 version=4, oneof int64 create_revision=5, "
    "oneof int64 mod_revision=6, oneof bytes value=7, oneof int64 lease=8",
    "TxnRequest": "repeated Compare compare=1, repeated RequestOp success=2, repeated RequestOp failure=3",
    "TxnResponse": "Header header=1, bool succeeded=2, repeated ResponseOp responses=3",
    "LeaseGrantRequest": "int64 TTL=1, int64 ID=2",
    "LeaseGrantResponse": "Header header=1, int64 ID=2, int64 TTL=3, string error=4",
    "LeaseRevokeRequest": "int64 ID=1",
    "LeaseRevokeResponse": "Header header=1",
    "LeaseKeepAliveRequest": "int64 ID=1",
    "LeaseKeepAliveResponse": "Header header=1, int64 ID=2, int64 TTL=3",
    "WatchCreateRequest": "bytes key=1, bytes range_end=2, int64 start_revision=3, bool progress_notify=4, "
    "bool prev_kv=6, int64 watch_id=7, bool fragment=8",
    "WatchProgressRequest": "",
    "WatchRequest": "oneof WatchCreateRequest create_request=1, oneof WatchProgressRequest progress_request=3",
    "WatchResponse": "Header header=1, int64 watch_id=2, bool created=3, bool canceled=4, int64 compact_revision=5, "
    "string cancel_reason=6, bool fragment=7, repeated Event events=11",
    "StatusRequest": "",
    "StatusResponse": "Header header=1, string version=2, int64 dbSize=3, uint64 leader=4",
    "MemberListRequest": "",
    "Member": "uint64 ID=1, string name=2, repeated string peerURLs=3, repeated string clientURLs=4",
    "MemberListResponse": "Header header=1, repeated Member members=2",
    "AuthenticateRequest": "string name=1, string password=2",
    "AuthenticateResponse": "Header header=1, string token=2",
}
MESSAGE: Final = protobufs.message_classes("adsum.etcd", _MESSAGES)
"""Name → class of each message."""
