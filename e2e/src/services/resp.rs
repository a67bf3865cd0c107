//! As much of the Redis protocol as a test needs: commands with an answer each, over one connection.
//! Starting a client program for every question would load the machine whose timing is being tested.

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Sends commands, and returns one text for each: lists have a line for each element, errors are their message, nothing is empty.
pub async fn ask(port: u16, password: &str, commands: &[Vec<&str>]) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (read, mut write) = stream.split();
    let login = vec!["AUTH", password];
    let mut request = Vec::new();
    for command in std::iter::once(&login).chain(commands) {
        encode(command, &mut request);
    }
    let mut read = BufReader::new(read);
    let answers = async {
        let greeting = decode(&mut read).await?;
        if greeting != "OK" {
            bail!("{greeting}");
        }
        let mut answers = Vec::new();
        for _ in commands {
            answers.push(decode(&mut read).await?);
        }
        Ok(answers)
    };
    // Side by side, because a server stops to read when nobody reads its answers.
    let (sent, answers) = tokio::join!(write.write_all(&request), answers);
    sent?;
    answers
}

fn encode(command: &[&str], request: &mut Vec<u8>) {
    request.extend(format!("*{}\r\n", command.len()).bytes());
    for word in command {
        request.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

/// One answer. Lists may hold lists, so what is still to come is counted instead of recursed into.
async fn decode(read: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    let mut lines = Vec::new();
    let mut outstanding = 1_usize;
    while outstanding > 0 {
        outstanding -= 1;
        let mut line = String::new();
        if read.read_line(&mut line).await? == 0 {
            bail!("the connection was closed");
        }
        let (kind, text) = line
            .trim_end()
            .split_at_checked(1)
            .context("an empty line is no answer")?;
        match kind {
            "+" | "-" | ":" => lines.push(text.to_owned()),
            "*" => outstanding += text.parse::<usize>().unwrap_or_default(),
            "$" => match text.parse::<usize>() {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    read.read_exact(&mut bytes).await?;
                    bytes.truncate(length);
                    lines.push(String::from_utf8_lossy(&bytes).into_owned());
                }
                Err(_) => lines.push(String::new()),
            },
            other => bail!("{other:?} begins no answer"),
        }
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn decoded(mut bytes: &[u8]) -> Result<String> {
        decode(&mut bytes).await
    }

    #[tokio::test]
    async fn answers_become_text() -> Result<()> {
        assert_eq!(decoded(b"+OK\r\n").await?, "OK");
        assert_eq!(decoded(b"-ERR no\r\n").await?, "ERR no");
        assert_eq!(decoded(b":7\r\n").await?, "7");
        assert_eq!(decoded(b"$4\r\na\r\nb\r\n").await?, "a\r\nb");
        assert_eq!(decoded(b"$-1\r\n").await?, "");
        assert_eq!(decoded(b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n").await?, "1\nx");
        assert_eq!(decoded(b"*-1\r\n").await?, "");
        assert!(decoded(b"+half").await.is_ok_and(|text| text == "half"));
        assert!(decoded(b"").await.is_err());
        assert!(decoded(b"\xc3\xa9\r\n").await.is_err());
        Ok(())
    }

    #[test]
    fn commands_are_length_prefixed() {
        let mut request = Vec::new();
        encode(&["SET", "k", "ä"], &mut request);
        assert_eq!(
            String::from_utf8_lossy(&request),
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nä\r\n"
        );
    }
}
