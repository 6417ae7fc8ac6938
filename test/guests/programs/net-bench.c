/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viommu-net-bench INTERFACE: sends a frame and waits until it comes back, one after the other. The
 * peer returns every frame as it came, so each is addressed to this interface. Every line of the
 * input is one round, `BYTES COUNT MS`: the size of a frame with its header, and how many, or fewer
 * where none begins any more after so many milliseconds. Prints the nanoseconds of the round, and
 * how many came back.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "container.h"
#include "now.h"

/* IEEE 802 gives it to experiments: the kernel's own protocols leave such frames alone. */
#define PROTOCOL 0x88b5
#define MIN_BYTES 60u
#define MAX_BYTES 1514u
#define PATIENCE_S 60

struct frame {
	struct ether_header header;
	uint32_t number;
	uint8_t rest[MAX_BYTES - sizeof(struct ether_header) - sizeof(uint32_t)];
} __attribute__((packed));

static int open_interface(const char *name, struct frame *frame)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL) };
	struct ifreq request = { 0 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(PROTOCOL));

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	address.sll_ifindex = if_nametoindex(name);
	if (fd < 0 || !address.sll_ifindex || ioctl(fd, SIOCGIFHWADDR, &request) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		fail("reason=\"no interface %s\"", name);
	memcpy(frame->header.ether_dhost, request.ifr_hwaddr.sa_data, ETH_ALEN);
	memcpy(frame->header.ether_shost, request.ifr_hwaddr.sa_data, ETH_ALEN);
	frame->header.ether_type = htons(PROTOCOL);
	return fd;
}

static void round_trip(int fd, struct frame *frame, unsigned int bytes)
{
	struct frame answer;
	ssize_t got;

	frame->number++;
	if (send(fd, frame, bytes, 0) != (ssize_t)bytes)
		fail("reason=\"a frame was not sent\"");
	do {
		got = recv(fd, &answer, sizeof(answer), 0);
		if (got < 0)
			fail("reason=\"no frame came back in %d s\"", PATIENCE_S);
	} while (got != (ssize_t)bytes || memcmp(&answer, frame, bytes));
}

int main(int argc, char **argv)
{
	static struct frame frame;
	unsigned int bytes, count, ms, i;
	char text[128];
	uint64_t began;
	int fd;

	job = "net-bench";
	if (argc != 2)
		fail("reason=\"viommu-net-bench INTERFACE\"");
	fd = open_interface(argv[1], &frame);
	for (i = 0; i < sizeof(frame.rest); i++)
		frame.rest[i] = i;
	say("state=ready");
	while (fgets(text, sizeof(text), stdin) && strncmp(text, "end", 3)) {
		if (sscanf(text, "%u %u %u", &bytes, &count, &ms) != 3 || bytes < MIN_BYTES || bytes > MAX_BYTES || !count)
			fail("reason=\"no round: BYTES COUNT MS\"");
		began = now();
		i = 0;
		do
			round_trip(fd, &frame, bytes);
		while (++i < count && now() < began + ms * 1000000ull);
		say("ns=%llu rounds=%u", (unsigned long long)(now() - began), i);
	}
	return 0;
}
