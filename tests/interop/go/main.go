// A client in Go over the contract alone: registers, sees itself come by watch, publishes the same event twice, receives it
// once, and leaves. The stubs in package api are generated from `trunkline protos export` by the test that runs this.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"trunkline.example/interop/api"
)

const namespace, service, id = "default", "cart", "go-1"

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn := must(grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer conn.Close()
	lease := register(ctx, conn)
	publishTwice(ctx, conn)
	subscribe(ctx, conn)
	refused(ctx, conn)
	ref := &api.RegistrationRef{Namespace: namespace, LeaseId: lease}
	left := must(api.NewRegistryServiceClient(conn).Deregister(ctx, &api.DeregisterRequest{Registration: ref}))
	fmt.Println("deregistered:", left.Changed)
}

// register opens a watch, registers, and returns the lease once the watch has shown the instance.
func register(ctx context.Context, conn *grpc.ClientConn) uint64 {
	watch := must(api.NewDiscoveryServiceClient(conn).Watch(ctx))
	open := &api.OpenWatch{WatchId: 1, Namespace: namespace, Service: service, Client: id}
	if err := watch.Send(&api.WatchRequest{Command: &api.WatchRequest_Open{Open: open}}); err != nil {
		log.Fatal(err)
	}
	secret := make([]byte, 16)
	must(rand.Read(secret))
	answer := must(api.NewRegistryServiceClient(conn).Register(ctx, &api.RegisterRequest{
		Instance: &api.Instance{
			Namespace: namespace, Service: service, Id: id, Version: "1.0.0",
			Endpoints: []*api.Endpoint{{Host: "127.0.0.1", Port: 8080}},
		},
		LeaseSecret: secret,
		Ttl:         durationpb.New(10 * time.Second),
	}))
	for {
		for _, event := range must(watch.Recv()).Events {
			for _, instance := range event.Upserted {
				if instance.Instance.Id == id {
					fmt.Println("watched:", instance.Status)
					return answer.LeaseId
				}
			}
		}
	}
}

func publishTwice(ctx context.Context, conn *grpc.ClientConn) {
	event := &api.CloudEvent{
		Id: "go-event", Source: "/interop/go", SpecVersion: "1.0", Type: "cart.opened",
		Data: &api.CloudEvent_TextData{TextData: "hello from go"},
	}
	for range []int{1, 2} {
		request := &api.PublishRequest{Namespace: namespace, Events: []*api.CloudEvent{event}}
		answer := must(api.NewEventServiceClient(conn).Publish(ctx, request))
		published := answer.Published[0]
		fmt.Println("published:", published.Offset, published.Duplicate, answer.Durability.Sync)
	}
}

func subscribe(ctx context.Context, conn *grpc.ClientConn) {
	stream := must(api.NewEventServiceClient(conn).Subscribe(ctx))
	start := &api.StartPosition{Start: &api.StartPosition_Earliest{Earliest: true}}
	open := &api.OpenSubscription{
		SubscriptionId: 1, Namespace: namespace, Name: "go", Credit: 10,
		Config: &api.SubscriptionConfig{Filters: []string{"cart.*"}, Start: start},
	}
	if err := stream.Send(&api.SubscribeRequest{Open: open}); err != nil {
		log.Fatal(err)
	}
	for {
		for _, delivery := range must(stream.Recv()).Deliveries {
			fmt.Println("received:", delivery.Event.GetTextData(), delivery.Attempt)
			ack := &api.Acknowledgement{
				SubscriptionId: 1, Outcome: api.Acknowledgement_OUTCOME_ACK, Offsets: []uint64{delivery.Offset},
			}
			if err := stream.Send(&api.SubscribeRequest{Acknowledgements: []*api.Acknowledgement{ack}}); err != nil {
				log.Fatal(err)
			}
			if err := stream.CloseSend(); err != nil {
				log.Fatal(err)
			}
			return
		}
	}
}

// refused shows that errors come with their status and a message that names the field.
func refused(ctx context.Context, conn *grpc.ClientConn) {
	_, err := api.NewDiscoveryServiceClient(conn).Resolve(ctx, &api.ResolveRequest{Namespace: namespace, Service: "Not A Name"})
	if status.Code(err) != codes.InvalidArgument {
		log.Fatalf("not refused: %v", err)
	}
	fmt.Println("refused:", status.Convert(err).Message())
}
