// udp: sends datagrams as fast as one thread can, or counts those that arrive.
//
//	udp send ADDRESS PORT SIZE MILLISECONDS   one datagram for each system call
//	udp count PORT MILLISECONDS               from the first datagram on
//	udp flows ADDRESS PORT PORTS SOURCES PAUSE
//
// send prints how many it sent, count prints how many came. The two stand for
// two hosts, so each keeps to a processor of its own, the last and the first:
// else it is the scheduler that is measured, which puts both on one for seconds
// at a time, whoever stands between them. flows opens as
// many flows as PORTS times SOURCES: a datagram to each of PORTS ports from
// PORT on, from each of SOURCES sockets, and sleeps PAUSE microseconds after
// every 64 of them.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int udp_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		die("socket");
	return fd;
}

static struct sockaddr_in address(const char *text, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
		fprintf(stderr, "udp: %s is no IPv4 address\n", text);
		exit(2);
	}
	return a;
}

static int64_t milliseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// keep_to the last or the first processor that this program may use.
static void keep_to(int last)
{
	cpu_set_t may, one;
	if (sched_getaffinity(0, sizeof may, &may) < 0)
		die("sched_getaffinity");
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &may) || (!last && CPU_COUNT(&one)))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
	}
	if (sched_setaffinity(0, sizeof one, &one) < 0)
		die("sched_setaffinity");
}

static int send_many(char **arg)
{
	static char data[1 << 16];
	struct sockaddr_in to = address(arg[0], atoi(arg[1]));
	size_t size = atoi(arg[2]);
	int fd = udp_socket();
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		die("connect");
	keep_to(1);
	uint64_t sent = 0;
	int64_t end = milliseconds() + atoi(arg[3]);
	while (milliseconds() < end)
		for (int i = 0; i < 32; i++)
			sent += send(fd, data, size, 0) == (ssize_t)size;
	printf("%lu\n", sent);
	return 0;
}

static int count(char **arg)
{
	enum { SLOTS = 64, SLOT_SIZE = 2048 };
	static char slots[SLOTS][SLOT_SIZE];
	static struct iovec parts[SLOTS];
	static struct mmsghdr msgs[SLOTS];
	for (int i = 0; i < SLOTS; i++) {
		parts[i] = (struct iovec){ slots[i], SLOT_SIZE };
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	struct sockaddr_in at = address("0.0.0.0", atoi(arg[0]));
	int64_t length = atoi(arg[1]), end = 0;
	int fd = udp_socket(), size = 32 << 20;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		die("SO_RCVBUFFORCE");
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		die("bind");
	keep_to(0);
	puts("ready");
	fflush(stdout);
	uint64_t came = 0;
	while (!end || milliseconds() < end) {
		int n = recvmmsg(fd, msgs, SLOTS, MSG_WAITFORONE, NULL);
		if (n < 0 && errno != EINTR)
			die("recvmmsg");
		if (!end)
			end = milliseconds() + length; // the rest of a queue that had filled up does not count
		else if (n > 0)
			came += n;
	}
	printf("%lu\n", came);
	return 0;
}

static int flows(char **arg)
{
	static char data[64];
	int first = atoi(arg[1]), ports = atoi(arg[2]), sources = atoi(arg[3]), pause = atoi(arg[4]);
	uint64_t sent = 0;
	for (int s = 0; s < sources; s++) {
		int fd = udp_socket();
		for (int p = 0; p < ports; p++) {
			struct sockaddr_in to = address(arg[0], first + p);
			sent += sendto(fd, data, sizeof data, 0, (struct sockaddr *)&to, sizeof to) == sizeof data;
			if (sent % 64 == 0)
				usleep(pause);
		}
	}
	printf("%lu\n", sent);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "send"))
		return send_many(argv + 2);
	if (argc == 4 && !strcmp(argv[1], "count"))
		return count(argv + 2);
	if (argc == 7 && !strcmp(argv[1], "flows"))
		return flows(argv + 2);
	fprintf(stderr, "usage: udp send ADDRESS PORT SIZE MILLISECONDS | count PORT MILLISECONDS | flows ADDRESS PORT PORTS SOURCES PAUSE\n");
	return 2;
}
