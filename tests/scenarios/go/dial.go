// Dials a target with etcd's gRPC resolver, calls its health service again and again, and prints who answered.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ",")})
	if err != nil {
		panic(err)
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		panic(err)
	}
	connection, err := grpc.Dial(os.Args[2], grpc.WithResolvers(builder), grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy":"round_robin"}`))
	if err != nil {
		panic(err)
	}
	health := grpc_health_v1.NewHealthClient(connection)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		var who peer.Peer
		_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&who))
		cancel()
		if err != nil {
			fmt.Println("failed:", err)
		} else {
			fmt.Println(who.Addr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
