// queueloop: the least that a program can do with an NFQUEUE and still let
// every packet through. It takes up to 64 packets in one recvmmsg and answers
// each with a verdict of its own, or, with -b, all of them with one batch
// verdict. It looks at nothing but the packet's number: what it carries is the
// ceiling for anybody who decides in user space on one thread.
//
//	cc -O2 -o queueloop queueloop.c; ./queueloop [-b] QUEUE
//
// It prints "ready" when packets may come, and runs until it is killed.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLOTS = 64, SLOT_SIZE = 68 << 10, QUEUE_LENGTH = 8192, SOCKET_BUFFER = 32 << 20 };

// A request is a netlink message that is built up attribute by attribute.
struct request {
	struct nlmsghdr head;
	struct nfgenmsg nfgen;
	char attrs[128];
};

static void begin(struct request *r, int type, uint16_t queue)
{
	memset(r, 0, sizeof *r);
	r->head.nlmsg_len = NLMSG_LENGTH(sizeof r->nfgen);
	r->head.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
	r->head.nlmsg_flags = NLM_F_REQUEST;
	r->nfgen.version = NFNETLINK_V0;
	r->nfgen.res_id = htons(queue);
}

static void add(struct request *r, int type, const void *data, size_t size)
{
	struct nlattr *a = (struct nlattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));
	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + size;
	memcpy(a + 1, data, size);
	r->head.nlmsg_len = (char *)a - (char *)r + NLA_ALIGN(a->nla_len);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

// ask sends a request and waits for the kernel's word on it.
static void ask(int fd, struct request *r, const char *what)
{
	char answer[4096];
	r->head.nlmsg_flags |= NLM_F_ACK;
	if (send(fd, r, r->head.nlmsg_len, 0) < 0)
		die(what);
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof answer, 0);
		struct nlmsghdr *h = (struct nlmsghdr *)answer;
		if (n < 0)
			die(what);
		if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR)
			continue; // a packet has come already; it is lost, and TCP will repeat it
		errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
		if (errno)
			die(what);
		return;
	}
}

static int bind_queue(uint16_t queue)
{
	struct request r;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (fd < 0)
		die("socket");
	int size = SOCKET_BUFFER, on = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		die("SO_RCVBUFFORCE");
	if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) < 0)
		die("NETLINK_NO_ENOBUFS");

	struct nfqnl_msg_config_cmd bind_cmd = { .command = NFQNL_CFG_CMD_BIND };
	begin(&r, NFQNL_MSG_CONFIG, queue);
	add(&r, NFQA_CFG_CMD, &bind_cmd, sizeof bind_cmd);
	ask(fd, &r, "bind");

	struct nfqnl_msg_config_params whole = { .copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET };
	uint32_t length = htonl(QUEUE_LENGTH), gso = htonl(NFQA_CFG_F_GSO);
	begin(&r, NFQNL_MSG_CONFIG, queue);
	add(&r, NFQA_CFG_PARAMS, &whole, sizeof whole);
	add(&r, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
	add(&r, NFQA_CFG_FLAGS, &gso, sizeof gso);
	add(&r, NFQA_CFG_MASK, &gso, sizeof gso);
	ask(fd, &r, "configure");
	return fd;
}

// packet_id finds the packet's number in network byte order.
static int packet_id(char *msg, size_t size, uint32_t *id)
{
	struct nlmsghdr *h = (struct nlmsghdr *)msg;
	if (size < sizeof *h || h->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
		return 0;
	char *end = msg + (h->nlmsg_len < size ? h->nlmsg_len : size);
	for (char *p = msg + NLMSG_LENGTH(sizeof(struct nfgenmsg)); p + NLA_HDRLEN <= end;) {
		struct nlattr *a = (struct nlattr *)p;
		if ((a->nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR) {
			*id = ((struct nfqnl_msg_packet_hdr *)(p + NLA_HDRLEN))->packet_id;
			return 1;
		}
		if (a->nla_len < NLA_HDRLEN)
			return 0;
		p += NLA_ALIGN(a->nla_len);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int batch = argc > 1 && !strcmp(argv[1], "-b");
	if (argc != 2 + batch) {
		fprintf(stderr, "usage: queueloop [-b] QUEUE\n");
		return 2;
	}
	uint16_t queue = atoi(argv[1 + batch]);
	int fd = bind_queue(queue);
	puts("ready");
	fflush(stdout);

	static char slots[SLOTS][SLOT_SIZE];
	static struct iovec parts[SLOTS];
	static struct mmsghdr msgs[SLOTS];
	for (int i = 0; i < SLOTS; i++) {
		parts[i] = (struct iovec){ slots[i], SLOT_SIZE };
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	for (;;) {
		int n = recvmmsg(fd, msgs, SLOTS, MSG_WAITFORONE, NULL);
		if (n < 0) {
			if (errno == EINTR || errno == ENOBUFS)
				continue;
			die("recvmmsg");
		}
		struct nfqnl_msg_verdict_hdr v = { .verdict = htonl(NF_ACCEPT) };
		int got = 0;
		for (int i = 0; i < n; i++) {
			struct request r;
			if (!packet_id(slots[i], msgs[i].msg_len, &v.id))
				continue;
			got = 1;
			if (batch)
				continue;
			begin(&r, NFQNL_MSG_VERDICT, queue);
			add(&r, NFQA_VERDICT_HDR, &v, sizeof v);
			if (send(fd, &r, r.head.nlmsg_len, 0) < 0)
				die("verdict");
		}
		if (batch && got) { // all packets up to and with the last one's number
			struct request r;
			begin(&r, NFQNL_MSG_VERDICT_BATCH, queue);
			add(&r, NFQA_VERDICT_HDR, &v, sizeof v);
			if (send(fd, &r, r.head.nlmsg_len, 0) < 0)
				die("batch verdict");
		}
	}
}
