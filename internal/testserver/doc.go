// Package testserver starts the real servers that tests, the demo and the
// benchmarks need, each for itself and nothing else: PostgreSQL with TLS 1.3,
// and a Docker engine that is a Swarm of one node. Nothing here touches a
// cluster or an engine that the machine already has.
//
// # What a test writes
//
//	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})   // stopped and removed with the test
//	conn, err := pgx.Connect(ctx, pg.AdminURL())
//
//	var swarm testserver.SharedEngine                              // one for the test binary, started when first asked for
//	engine := swarm.Get(t)
//	image, err := engine.LoginLoadImage(ctx)
//	engine.Client().ServiceCreate(…)
//
// Programs that are no tests use [StartPostgres] and [StartEngine], and call
// Stop. A server that the machine cannot start (no binaries, not root) gives an
// error that wraps [ErrMissing]; [Require] makes of it a failure where CI=true
// and a skip elsewhere.
//
// # Tasks, networks and addresses
//
// A service that is attached to the network [HostNetwork] runs in the machine's
// network and reaches a [Postgres] by its 127.0.0.1 address. Tasks on an overlay
// network (VIPs need IPVS in the kernel: use endpoint mode dnsrr) reach the
// machine by [Engine.GatewayIP]; give that address to
// [PostgresOptions.ListenAddresses], and it stands in the certificate, too.
// No packet filter rule is made. Publishing a port through Swarm's routing mesh
// does not work: its network, ingress, is removed, since the kernel listens for
// VXLAN on all addresses (0.0.0.0, a port of the engine's own) as long as an
// overlay network has an end here. So that port is open in the first second of an
// engine, and while a test has tasks on an overlay network. Everything else
// listens on loopback, or on the bridge of the engine.
//
// # Nothing is left behind
//
// Every server has a guard: a small shell process in a session of its own that
// waits for the end of the process that started it, however that came, kill -9
// and Ctrl-C included. It then ends the server by its process id and removes its
// folder, its bridge and its control groups. The engine lives in a mount and a
// process namespace of its own, so its containers and mounts cannot outlive it.
// Should even the guard be killed, the next start does its work ([Reap]).
//
// The same holds for what tests put aside ([Main], [Scratch]), and for the
// programs that they run, if those are started by the package child.
package testserver
