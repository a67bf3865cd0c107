use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const LONG: Duration = Duration::from_mins(1);

fn pair(space: usize) -> (Transport<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(space);
    (Transport::new(near, &[], 1_000), far)
}

#[tokio::test]
async fn frames_arrive_as_they_were_made_however_little_fits_at_a_time() {
    for space in [1, 7, 64, 1 << 16] {
        let (mut transport, mut far) = pair(space);
        let frames: Vec<Frame> = (0..200).map(|number| Frame::text(&number.to_string())).collect();
        let wanted: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        let reading = tokio::spawn(async move {
            let mut read = vec![0; wanted.len()];
            far.read_exact(&mut read).await.unwrap();
            (read, wanted)
        });
        assert!(transport.send(&frames, || sleep(LONG)).await.is_ok());
        let (read, wanted) = reading.await.unwrap();
        assert_eq!(read, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_cut_is_ended_before_the_last_words() {
    let (mut transport, mut far) = pair(16);
    let frames = [
        Frame::text("0123456789"),
        Frame::text("abcdefghij"),
        Frame::text("lost"),
    ];
    assert!(
        transport
            .send(&frames, || sleep(Duration::from_secs(5)))
            .await
            .is_err()
    );
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        read
    });
    transport
        .close(&[Frame::close(4008, "slow")], Duration::from_secs(1))
        .await;
    drop(transport);
    let last = Frame::close(4008, "slow");
    let wanted = [
        frames[0].bytes().as_ref(),
        frames[1].bytes().as_ref(),
        last.bytes().as_ref(),
    ];
    assert_eq!(reading.await.unwrap(), wanted.concat());
}

#[tokio::test]
async fn what_came_before_a_violation_is_heard() {
    let (near, mut far) = duplex(1_000);
    // The first frame came with the request.
    let mut transport = Transport::new(near, &[0x89, 0x80, 0, 0, 0, 0], 1_000);
    far.write_all(&[0x8A, 0x80, 0, 0, 0, 0, 0x81, 0x00])
        .await
        .unwrap();
    assert_eq!(transport.hear().await, Ok(Some(Incoming::Ping(vec![]))));
    assert_eq!(transport.hear().await, Ok(Some(Incoming::Pong)));
    assert_eq!(transport.hear().await, Err(Violation::Protocol));
    assert_eq!(transport.hear().await, Err(Violation::Protocol));
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_is_noticed() {
    let (mut transport, far) = pair(100);
    drop(far);
    assert_eq!(transport.hear().await, Ok(None));
    assert!(transport.send(&[Frame::ping()], || sleep(LONG)).await.is_ok());
}
