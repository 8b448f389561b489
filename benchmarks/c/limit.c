// The least that a server can do. It prints its port, and ends with its standard input.
//
//   limit                    a POST sends its body to every WebSocket subscriber, with one `send` each
//   limit AWAKE_MS ANSWER    every request gets the same response; ANSWER holds all its bytes
//
// For AWAKE_MS after a request it waits for the next one without sleeping.
// It relies on our load: it answers one handshake key, parses no frames, its messages have at least
// 126 bytes, and `send` may block.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 65536, REQUEST_BYTES = 1200000 };

struct request {
    char data[REQUEST_BYTES];
    size_t length;
};

static struct request *requests[CONNECTIONS];  // NULL for subscribers
static char is_subscriber[CONNECTIONS];
static int highest;  // of the subscribers' descriptors
static const char *fixed_answer;  // NULL: broadcast
static double awake_s, awake_until;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void drop(int fd) {
    free(requests[fd]);
    requests[fd] = NULL;
    is_subscriber[fd] = 0;
    close(fd);
}

static void broadcast(const char *message, size_t length) {
    char frame[4 + REQUEST_BYTES], head[4] = {(char)0x81, 126, (char)(length >> 8), (char)length};
    memcpy(frame, head, 4);
    memcpy(frame + 4, message, length);
    for (int fd = 0; fd <= highest; fd++) {
        if (is_subscriber[fd]) send(fd, frame, 4 + length, MSG_NOSIGNAL);
    }
}

static void receive(int fd) {
    if (is_subscriber[fd]) {
        char ignored[4096];
        if (recv(fd, ignored, sizeof ignored, 0) <= 0) drop(fd);
        return;
    }
    struct request *r = requests[fd];
    if (r == NULL) {
        r = requests[fd] = malloc(sizeof *r);
        if (r == NULL) die("malloc");
        r->length = 0;
    }
    ssize_t got = recv(fd, r->data + r->length, REQUEST_BYTES - r->length, 0);
    if (got <= 0) {
        drop(fd);
        return;
    }
    r->length += (size_t)got;
    const char *end = memmem(r->data, r->length, "\r\n\r\n", 4);
    if (end == NULL) return;
    if (awake_s > 0) awake_until = now() + awake_s;
    const char *answer = fixed_answer ? fixed_answer : "HTTP/1.1 204 No Content\r\n\r\n";
    if (r->data[0] == 'G' && fixed_answer == NULL) {
        answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        is_subscriber[fd] = 1;
        if (fd > highest) highest = fd;
        free(r);
        requests[fd] = NULL;
    } else {
        size_t head = (size_t)(end - r->data) + 4, body = 0;
        for (const char *line = r->data; line < end; line += 2) {
            if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
            line = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        }
        if (r->length < head + body) return;
        broadcast(r->data + head, body);
        r->length = 0;
    }
    send(fd, answer, strlen(answer), MSG_NOSIGNAL);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        awake_s = atof(argv[1]) / 1e3;
        fixed_answer = argv[2];
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 2048) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    int poller = epoll_create1(0), watched[] = {STDIN_FILENO, listener};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, watched[i], &event) < 0) die("epoll_ctl");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, now() < awake_until ? 0 : -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd != listener) {
                receive(fd);
                continue;
            }
            int client = accept4(listener, NULL, NULL, 0);
            if (client < 0) die("accept");
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = client};
            if (epoll_ctl(poller, EPOLL_CTL_ADD, client, &event) < 0) die("epoll_ctl");
        }
    }
}
