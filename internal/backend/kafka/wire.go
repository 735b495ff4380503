package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/keyturn/keyturn/internal/backend/remote"
)

// A client speaks Kafka's protocol to one broker, on one connection, one request after the
// other: see https://kafka.apache.org/protocol. Its messages are franz-go's; its own client is
// not used, which learns of all brokers and picks one, and brings producers and consumers.
type client struct {
	address   string
	mechanism sasl.Mechanism
	dial      remote.Dial

	conn     net.Conn        // nil: none is open
	until    time.Time       // when the broker ends it, zero for never
	versions map[int16]int16 // the newest of each request that the broker knows
	sent     int32
}

// formatter writes the heads of requests.
var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("keyturn"))

// mostAnswer bounds what is read as an answer: a broker's configuration has some hundred KB.
const mostAnswer = 16 << 20

// request sends a request and waits for its answer; it logs in first where that is to be done. After
// an error the next request makes a new connection.
func (c *client) request(ctx context.Context, request kmsg.Request) (kmsg.Response, error) {
	if c.conn != nil && !c.until.IsZero() && time.Now().After(c.until) {
		c.close()
	}
	if c.conn == nil {
		if err := c.open(ctx); err != nil {
			c.close()
			return nil, err
		}
	}
	answer, err := c.roundTrip(ctx, request)
	if err != nil || ctx.Err() != nil { // whose end may have come late
		c.close()
	}
	return answer, err
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is under way
		c.conn, c.until, c.versions = nil, time.Time{}, nil
	}
}

// open connects and logs in.
func (c *client) open(ctx context.Context) error {
	if err := c.shake(ctx); err != nil {
		return err
	}
	return c.login(ctx)
}

// shake connects, and asks whether the login that is to follow may have its mechanism.
func (c *client) shake(ctx context.Context) (err error) {
	if c.conn, err = c.dial(ctx, "tcp", c.address); err != nil {
		return err
	}
	known, err := exchange[*kmsg.ApiVersionsResponse](ctx, c, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return err
	}
	if err := refusalOf(known.ErrorCode, nil); err != nil {
		return err
	}
	c.versions = map[int16]int16{}
	for _, key := range known.ApiKeys {
		c.versions[key.ApiKey] = key.MaxVersion
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Mechanism = c.mechanism.Name()
	shaken, err := exchange[*kmsg.SASLHandshakeResponse](ctx, c, handshake)
	if err != nil {
		return err
	}
	return refusalOf(shaken.ErrorCode, nil)
}

// login goes through the exchange of SCRAM, in which both sides prove themselves.
func (c *client) login(ctx context.Context) error {
	session, message, err := c.mechanism.Authenticate(ctx, c.address)
	if err != nil {
		return err
	}
	begun := time.Now()
	for done := false; !done; {
		request := kmsg.NewPtrSASLAuthenticateRequest()
		request.SASLAuthBytes = message
		answer, err := exchange[*kmsg.SASLAuthenticateResponse](ctx, c, request)
		if err != nil {
			return err
		}
		if err := refusalOf(answer.ErrorCode, answer.ErrorMessage); err != nil {
			return err
		}
		if done, message, err = session.Challenge(answer.SASLAuthBytes); err != nil {
			return errors.New("the broker's part of SCRAM is not right")
		}
		if answer.SessionLifetimeMillis > 0 {
			c.until = begun.Add(time.Duration(answer.SessionLifetimeMillis) * time.Millisecond * 4 / 5)
		}
	}
	return nil
}

func exchange[R kmsg.Response](ctx context.Context, c *client, request kmsg.Request) (R, error) {
	return typed[R](c.roundTrip(ctx, request))
}

// typed is an answer as what it must be.
func typed[R kmsg.Response](resp kmsg.Response, err error) (answer R, _ error) {
	if err != nil {
		return answer, err
	}
	answer, ok := resp.(R)
	if !ok {
		return answer, fmt.Errorf("the answer is a %T", resp)
	}
	return answer, nil
}

// roundTrip writes one request and reads its answer.
func (c *client) roundTrip(ctx context.Context, request kmsg.Request) (kmsg.Response, error) {
	version := min(c.versions[request.Key()], request.MaxVersion()) // 0 of the first request, which asks for them
	request.SetVersion(version)
	conn := c.conn
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // what waits ends
	c.sent++
	if _, err := conn.Write(formatter.AppendRequest(nil, request, c.sent)); err != nil {
		return nil, ended(ctx, err)
	}
	var head [8]byte // the size of what follows, and the number of the request
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, ended(ctx, err)
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size < 4 || size > mostAnswer || binary.BigEndian.Uint32(head[4:]) != uint32(c.sent) {
		return nil, errors.New("the answer is none of Kafka's")
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, ended(ctx, err)
	}
	if request.IsFlexible() && request.Key() != kmsg.ApiVersions.Int16() {
		body = afterTags(body)
	}
	answer := request.ResponseKind()
	answer.SetVersion(version)
	if err := answer.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("the answer cannot be read: %w", err)
	}
	return answer, nil
}

// ended says why a connection ended: because its time is over, or as it was.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the broker closed the connection")
	}
	return err
}

// afterTags skips the tagged fields of an answer's head (KIP-482).
func afterTags(body []byte) []byte {
	r := kbin.Reader{Src: body}
	for range r.Uvarint() {
		r.Uvarint()
		r.Span(int(r.Uvarint()))
		if !r.Ok() {
			break
		}
	}
	return r.Src
}
