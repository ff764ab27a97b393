// Calls /test.Names/Name of a target, such as xds:///names, again and again, and prints who answered.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/xds"
)

// raw passes bytes on as they are.
type raw struct{}

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }
func (raw) Unmarshal(bytes []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), bytes...)
	return nil
}
func (raw) Name() string { return "proto" }

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		request, answer := []byte{}, []byte{}
		err := connection.Invoke(ctx, "/test.Names/Name", &request, &answer, grpc.ForceCodec(raw{}))
		cancel()
		if err != nil {
			fmt.Println("failed:", err)
		} else {
			fmt.Println(string(answer))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
