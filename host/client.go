package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/nfq"
)

// Client talks to a running daemon over its control socket. Its errors are
// sentences: *NotRunningError when nobody answers, *APIError when the daemon
// said no.
type Client struct {
	http http.Client
	// Slow, if it is set, hears a sentence when the daemon takes its time, and how
	// long this goes on waiting.
	Slow func(text string)
	// Left looks for the table where no daemon answers; see NotRunningError.
	Left func() (Left, error)

	socket string
	daemon atomic.Int32 // its process, as far as it can be seen from here; 0: unknown
	// silent is after what time without an answer it is asked how the daemon
	// is, long how often whoever waits for a change is told that it goes on.
	silent, long time.Duration
}

// NewClient makes a client for a socket, "" for DefaultSocket. It does not
// connect yet.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	c := &Client{socket: socket, silent: 5 * time.Second, long: time.Minute, Left: nfq.FindLeft}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialControl(ctx, socket, c.Left)
			if err == nil {
				if cred, err := peer(conn); err == nil {
					c.daemon.Store(cred.Pid)
				}
			}
			return conn, err
		},
	}
	return c
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.call(ctx, "GET", "/v1/status", nil, &s)
	return s, err
}

// Policy asks for the policy in force.
func (c *Client) Policy(ctx context.Context) (p PolicyText, err error) {
	err = c.call(ctx, "GET", "/v1/policy", nil, &p)
	return p, err
}

// Reload makes the daemon read its policy again. An *APIError with
// Diagnostics says that the policy is not good and the one before stays. It waits
// for as long as the daemon is at it: what comes in force later must not be told
// as failed.
func (c *Client) Reload(ctx context.Context, q ReloadRequest) (r ReloadResult, err error) {
	err = c.callFor(ctx, 0, "POST", "/v1/reload", q, &r)
	return r, err
}

// Confirm makes the policy in force stay. It waits as Reload does.
func (c *Client) Confirm(ctx context.Context) (r Confirmation, err error) {
	err = c.callFor(ctx, 0, "POST", "/v1/confirm", nil, &r)
	return r, err
}

// Flows calls each for every flow until it returns an error, which it
// returns.
func (c *Client) Flows(ctx context.Context, each func(Flow) error) error {
	return stream(c, ctx, "/v1/flows", each)
}

// SAs calls each for every SA until it returns an error, which it returns.
func (c *Client) SAs(ctx context.Context, each func(SA) error) error {
	return stream(c, ctx, "/v1/sas", each)
}

// IKESAs calls each for every IKE SA until it returns an error, which it
// returns.
func (c *Client) IKESAs(ctx context.Context, each func(IKESA) error) error {
	return stream(c, ctx, "/v1/ike", each)
}

// IKE has the daemon initiate, rekey or terminate what it agrees on with a
// peer, and waits for what comes of it.
func (c *Client) IKE(ctx context.Context, verb string, q IKERequest) (r IKEResult, err error) {
	err = c.callFor(ctx, time.Minute+time.Duration(q.Wait*float64(time.Second)), "POST", "/v1/ike/"+verb, q, &r)
	return r, err
}

// WiresharkKeys asks for the keys of all SAs, to read captures by with a current
// Wireshark, or, if release is "4.0", with that.
func (c *Client) WiresharkKeys(ctx context.Context, release string) (k WiresharkKeys, err error) {
	err = c.call(ctx, "POST", "/v1/wireshark-keys?"+url.Values{"for": {release}}.Encode(), nil, &k)
	return k, err
}

// Events calls each for the last `back` events and, with follow, for all that
// come until ctx or the daemon ends; what each returns ends it too.
func (c *Client) Events(ctx context.Context, back uint, follow bool, each func(Event) error) error {
	q := url.Values{"back": {strconv.FormatUint(uint64(back), 10)}}
	if follow {
		q.Set("follow", "1")
	}
	return stream(c, ctx, "/v1/events?"+q.Encode(), each)
}

// do sends a request and gives the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ipfw"+path, r)
	if err != nil {
		return nil, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	answered := make(chan struct{})
	go c.watch(method, path, answered, fail)
	res, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	close(answered)
	if err != nil {
		defer fail(nil)
		if why := (*SilentError)(nil); errors.As(context.Cause(ctx), &why) {
			return nil, why
		}
		// url.Error wraps our sentence in a URL that means nothing to people.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		// net/http has many words for this, some of them without a type.
		if connected.Load() && ctx.Err() == nil {
			return nil, fmt.Errorf("the daemon at %s has ended before it answered: its log says why, and `ipfw status` what is in force", c.socket)
		}
		return nil, err
	}
	if res.StatusCode < 400 {
		return &answer{res.Body, func() { fail(nil) }}, nil
	}
	defer fail(nil)
	defer res.Body.Close()
	api := &APIError{Status: res.StatusCode}
	if err := json.NewDecoder(res.Body).Decode(api); err != nil || api.Message == "" {
		api.Message = fmt.Sprintf("the daemon answered %s", res.Status)
	}
	return nil, api
}

// answer is the body of an answer, whose end is the end of its request.
type answer struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (a *answer) Close() error {
	defer a.end()
	return a.ReadCloser.Close()
}

func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	return c.callFor(ctx, time.Minute, method, path, body, answer)
}

func (c *Client) callFor(ctx context.Context, limit time.Duration, method, path string, body, answer any) error {
	given := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	r, err := c.do(ctx, method, path, body)
	if err != nil && ctx.Err() != nil && given.Err() == nil {
		return &SilentError{Socket: c.socket, PID: int(c.daemon.Load()), After: limit}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(answer); err != nil {
		return fmt.Errorf("the daemon's answer to %s cannot be read: %w", path, err)
	}
	return nil
}

// stream reads JSON lines until the daemon ends them.
func stream[T any](c *Client, ctx context.Context, path string, each func(T) error) error {
	r, err := c.do(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	for dec := json.NewDecoder(r); ; {
		var v T
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("the daemon's answer to %s broke off: %w", path, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
