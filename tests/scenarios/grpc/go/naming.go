// etcd's gRPC naming as Go programs use it: `dial ETCD TARGET` with the resolver calls a target's health service again
// and again, and prints who answered; `register ETCD TARGET ADDRESS` lists an address with the endpoint manager, under a
// lease that is kept alive until SIGTERM and revoked then.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/naming/endpoints"
	"go.etcd.io/etcd/clientv3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[2], ",")})
	must(err)
	if os.Args[1] == "register" {
		register(client, os.Args[3], os.Args[4])
	} else {
		dial(client, os.Args[3])
	}
}

func dial(client *clientv3.Client, target string) {
	builder, err := resolver.NewBuilder(client)
	must(err)
	connection, err := grpc.Dial(target, grpc.WithResolvers(builder), grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy":"round_robin"}`))
	must(err)
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

func register(client *clientv3.Client, target string, address string) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	ctx := context.Background()
	lease, err := client.Grant(ctx, 30)
	must(err)
	kept, err := client.KeepAlive(ctx, lease.ID)
	must(err)
	go func() {
		for range kept {
		}
	}()
	manager, err := endpoints.NewManager(client, target)
	must(err)
	must(manager.AddEndpoint(ctx, target+"/"+address, endpoints.Endpoint{Addr: address}, clientv3.WithLease(lease.ID)))
	fmt.Println("registered")
	<-ended
	_, err = client.Revoke(ctx, lease.ID)
	must(err)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
